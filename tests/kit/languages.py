"""The same letter to a shop in many languages, and the encodings from before Unicode for each."""

from __future__ import annotations

from collections.abc import Iterator

LETTERS = {
    "de": "Sehr geehrte Damen und Herren, die Möbel, die ich vor drei Wochen bestellt habe,"
    " sind noch immer nicht angekommen. Am Telefon hörte ich nur, daß die Lieferung"
    " verspätet sei. Bitte prüfen Sie, wo die Stühle geblieben sind, und nennen Sie mir"
    " endlich ein Datum. Sollte das nicht möglich sein, möchte ich mein Geld zurück."
    " Außerdem fehlt die Rechnung für das Sofa. Mit freundlichen Grüßen, Jürgen Weiß",
    "fr": "Bonjour, la chaise que j'ai commandée il y a trois semaines n'est toujours pas"
    " arrivée. J'ai téléphoné deux fois à votre service, où l'on m'a répondu que le colis"
    " était déjà expédié. Or je n'ai rien reçu. Pourriez-vous vérifier où se trouve ma"
    " commande et me rappeler dès que possible ? Sinon je souhaite être remboursée"
    " intégralement. Le canapé, lui, est abîmé. Merci d'avance pour votre réponse, Hélène"
    " Lefèvre",
    "es": "Buenos días, la silla que pedí hace tres semanas todavía no ha llegado. Llamé dos"
    " veces a su teléfono de atención y me dijeron que el envío ya había salido. Aún no"
    " sé nada más. ¿Pueden comprobar dónde está mi pedido y avisarme mañana? Si no es"
    " posible, quiero que me devuelvan el dinero. También falta la factura del sillón del"
    " niño, que compré en otoño. Gracias y un saludo, Íñigo Muñoz",
    "it": "Buongiorno, la sedia che ho ordinato tre settimane fa non è ancora arrivata. Ho già"
    " telefonato due volte e mi hanno detto che la spedizione era partita lunedì. Però"
    " non ho ricevuto nulla. Potreste verificare dov'è il pacco e dirmi quando sarà"
    " consegnato? Se non è possibile, vorrei la restituzione del prezzo. Inoltre la"
    " qualità del divano è pessima, perché il tessuto è già strappato. Così non va."
    " Grazie, Nicolò",
    "pt": "Bom dia, a cadeira que encomendei há três semanas ainda não chegou. Já telefonei"
    " duas vezes e disseram-me que a encomenda estava a caminho. Não recebi mais nenhuma"
    " informação. Poderiam verificar onde está e avisar-me amanhã? Se não for possível,"
    " quero a devolução do dinheiro. Também falta a fatura do sofá, que comprei em março."
    " A situação é muito desagradável. Obrigada pela atenção, Conceição",
    "nl": "Geachte heer, mevrouw, de stoel die ik drie weken geleden heb besteld, is nog steeds"
    " niet geleverd. Ik heb al twee keer gebeld en hoorde één keer dat het pakket"
    " onderweg was. De financiële schade is klein, maar ik vind het vervelend voor mijn"
    " cliënten. Kunt u nagaan waar de bestelling is en mij vóór vrijdag bellen? Anders"
    " wil ik mijn geld terug. De coördinatie bij u is beneden peil. Met vriendelijke"
    " groet, Daniël",
    "sv": "Hej, stolen som jag beställde för tre veckor sedan har fortfarande inte kommit. Jag"
    " har ringt två gånger och fått höra att paketet är på väg. Kan ni kontrollera var"
    " det är och återkomma så snart som möjligt? Om det inte går vill jag ha mina pengar"
    " tillbaka. Dessutom är soffan skadad och fläckarna på tyget går inte bort. Jag är"
    " mycket besviken på er. Vänliga hälsningar, Åsa Öberg",
    "da": "Hej, stolen som jeg bestilte for tre uger siden, er stadig ikke kommet. Jeg har"
    " ringet to gange og fået at vide, at pakken er på vej. Kan I undersøge, hvor den er,"
    " og vende tilbage så hurtigt som muligt? Hvis det ikke går, ønsker jeg mine penge"
    " igen. Desuden er sofaen ødelagt, og pletterne på stoffet kan ikke gøres væk. Jeg er"
    " meget skuffet over jer. Venlig hilsen, Søren Ærø Åkjær",
    "no": "Hei, stolen som jeg bestilte for tre uker siden, har fortsatt ikke kommet. Jeg har"
    " ringt to ganger og fått høre at pakken er på vei. Kan dere undersøke hvor den er,"
    " og svare så snart som mulig? Hvis det ikke går, ønsker jeg pengene tilbake."
    " Dessuten er sofaen ødelagt, og flekkene på stoffet går ikke bort. Jeg er veldig"
    " skuffet over dere og måtte kjøpe en annen. Vennlig hilsen, Øystein Våge",
    "fi": "Hei, kolme viikkoa sitten tilaamani tuoli ei ole vieläkään tullut perille. Soitin"
    " teille kaksi kertaa, ja minulle sanottiin, että lähetys on jo matkalla. Voisitteko"
    " tarkistaa, missä se on, ja ilmoittaa mahdollisimman pian? Ellei se käy, pyydän"
    " rahani takaisin. Lisäksi sohvassa on iso tahra, jota en saa millään pois. Tämä ei"
    " ole hyvää palvelua. Ystävällisin terveisin, Päivi Hämäläinen",
    "is": "Góðan daginn, stóllinn sem ég pantaði fyrir þremur vikum er ekki enn kominn. Ég hef"
    " hringt tvisvar og mér var sagt að pakkinn væri á leiðinni. Getið þið athugað hvar"
    " hann er og látið mig vita sem fyrst? Ef það er ekki hægt vil ég fá peningana"
    " endurgreidda. Auk þess er sófinn skemmdur og blettirnir nást ekki úr áklæðinu. Ég"
    " er mjög óánægð með þetta. Kær kveðja, Þórdís Ægisdóttir",
    "pl": "Dzień dobry, krzesło, które zamówiłam trzy tygodnie temu, jeszcze nie dotarło."
    " Dzwoniłam dwa razy i usłyszałam, że przesyłka jest już w drodze. Proszę sprawdzić,"
    " gdzie się znajduje, i odpowiedzieć jak najszybciej. Jeśli to niemożliwe, chciałabym"
    " odzyskać pieniądze. Poza tym kanapa jest uszkodzona, a plamy nie dają się usunąć."
    " Jestem bardzo niezadowolona z państwa obsługi. Z poważaniem, Łucja Śliwińska",
    "cs": "Dobrý den, židle, kterou jsem si objednal před třemi týdny, stále nedorazila. Volal"
    " jsem dvakrát a řekli mi, že zásilka je už na cestě. Můžete prosím zjistit, kde je,"
    " a co nejdříve mi odpovědět? Pokud to nepůjde, chci vrátit peníze. Kromě toho je"
    " pohovka poškozená a skvrny na látce nejdou vyčistit. Jsem s vašimi službami velmi"
    " nespokojen. Se srdečným pozdravem, Jiří Dvořák z Plzně",
    "sk": "Dobrý deň, stolička, ktorú som si objednala pred tromi týždňami, stále neprišla."
    " Volala som dvakrát a povedali mi, že zásielka je už na ceste. Môžete prosím zistiť,"
    " kde je, a čo najskôr mi odpovedať? Ak to nepôjde, chcem vrátiť peniaze. Okrem toho"
    " je pohovka poškodená a škvrny na látke sa nedajú vyčistiť. S vašimi službami som"
    " veľmi nespokojná. S pozdravom, Ľubica Kováčová zo Žiliny",
    "hu": "Tisztelt Hölgyem, Uram! A szék, amelyet három hete rendeltem, még mindig nem"
    " érkezett meg. Kétszer telefonáltam, és azt mondták, hogy a csomag már úton van."
    " Kérem, nézzék meg, hol tart, és válaszoljanak minél előbb. Ha nem lehetséges,"
    " szeretném visszakapni a pénzemet. A kanapé ráadásul sérült, és a foltokat sem tudom"
    " eltüntetni belőle. Nagyon elégedetlen vagyok. Üdvözlettel, Szűcs Győző",
    "sl": "Pozdravljeni, stol, ki sem ga naročila pred tremi tedni, še vedno ni prišel. Dvakrat"
    " sem klicala in rekli so mi, da je pošiljka že na poti. Prosim, preverite, kje je,"
    " in mi čim prej odgovorite. Če to ni mogoče, želim denar nazaj. Poleg tega je kavč"
    " poškodovan in madežev ne morem očistiti. Z vašo storitvijo sem zelo nezadovoljna,"
    " saj sem plačala že vnaprej. Lep pozdrav, Živa Češnovar iz Škofje Loke",
    "hr": "Poštovani, stolica koju sam naručio prije tri tjedna još uvijek nije stigla. Dvaput"
    " sam zvao i rekli su mi da je pošiljka već na putu. Molim vas da provjerite gdje je"
    " i da mi što prije odgovorite. Ako to nije moguće, želim povrat novca. Osim toga,"
    " kauč je oštećen, a mrlje se ne mogu očistiti. Vrlo sam nezadovoljan vašom uslugom i"
    " više neću naručivati. Srdačan pozdrav, Đuro Živković iz Čakovca",
    "ro": "Bună ziua, scaunul pe care l-am comandat acum trei săptămâni încă nu a ajuns. Am"
    " sunat de două ori şi mi s-a spus că pachetul este deja pe drum. Vă rog să"
    " verificaţi unde se află şi să îmi răspundeţi cât mai repede. Dacă nu este posibil,"
    " doresc banii înapoi. În plus, canapeaua este stricată şi petele nu pot fi curăţate."
    " Sunt foarte nemulţumită de serviciile dumneavoastră. Cu stimă, Ştefania Brâncuşi",
    "tr": "Merhaba, üç hafta önce sipariş ettiğim sandalye hâlâ gelmedi. Sizi iki kez aradım ve"
    " paketin yolda olduğu söylendi. Lütfen nerede olduğunu kontrol edip bana en kısa"
    " sürede bilgi verin. Mümkün değilse paramı geri istiyorum. Ayrıca koltuk hasarlı"
    " çıktı ve üzerindeki lekeler temizlenmiyor. Hizmetinizden hiç memnun değilim, çünkü"
    " şikâyetime cevap alamadım. Saygılarımla, Işıl Çağlar, İstanbul",
    "lt": "Laba diena, kėdė, kurią užsakiau prieš tris savaites, dar neatvyko. Skambinau du"
    " kartus ir man pasakė, kad siunta jau pakeliui. Prašau patikrinti, kur ji yra, ir"
    " kuo greičiau man atsakyti. Jeigu tai neįmanoma, norėčiau atgauti pinigus. Be to,"
    " sofa yra sugadinta, o dėmių negaliu išvalyti. Esu labai nepatenkinta jūsų"
    " paslaugomis, nes už viską jau sumokėjau. Su pagarba, Žydrūnė Šimkutė",
    "lv": "Labdien, krēsls, ko pasūtīju pirms trim nedēļām, vēl nav pienācis. Zvanīju divas"
    " reizes, un man teica, ka sūtījums jau ir ceļā. Lūdzu, pārbaudiet, kur tas atrodas,"
    " un atbildiet pēc iespējas ātrāk. Ja tas nav iespējams, vēlos saņemt naudu atpakaļ."
    " Turklāt dīvāns ir bojāts, un traipus nevar iztīrīt. Esmu ļoti neapmierināta ar jūsu"
    " pakalpojumiem. Ar cieņu, Ģirts Bērziņš no Ķekavas",
    "et": "Tere, tool, mille tellisin kolm nädalat tagasi, ei ole ikka veel kohale jõudnud."
    " Helistasin teile kaks korda ja mulle öeldi, et pakk on juba teel. Palun"
    " kontrollige, kus see on, ja vastake mulle võimalikult kiiresti. Kui see pole"
    " võimalik, soovin raha tagasi. Lisaks on diivan katki ja plekke ei õnnestu välja"
    " pesta. Olen teie teenusega väga rahulolematu. Lugupidamisega, Ülle Mägi Võrust",
    "ru": "Здравствуйте, стул, который я заказал три недели назад, до сих пор не пришёл. Я"
    " звонил два раза, и мне сказали, что посылка уже в пути. Пожалуйста, проверьте, где"
    " она находится, и ответьте как можно скорее. Если это невозможно, я хочу вернуть"
    " деньги. Кроме того, диван повреждён, и пятна с ткани не отчищаются. Я очень"
    " недоволен вашим обслуживанием. С уважением, Юрий Щербаков",
    "uk": "Доброго дня, стілець, який я замовила три тижні тому, досі не надійшов. Я"
    " телефонувала двічі, і мені сказали, що посилка вже в дорозі. Будь ласка, перевірте,"
    " де вона, і дайте відповідь якнайшвидше. Якщо це неможливо, я хочу повернути гроші."
    " Крім того, диван пошкоджений, і плями з тканини не відчищаються. Я дуже"
    " незадоволена вашим обслуговуванням. З повагою, Євгенія Їжакевич",
    "bg": "Здравейте, столът, който поръчах преди три седмици, все още не е пристигнал. Обадих"
    " се два пъти и ми казаха, че пратката вече пътува. Моля, проверете къде се намира и"
    " ми отговорете възможно най-бързо. Ако това е невъзможно, искам да си получа парите"
    " обратно. Освен това диванът е повреден и петната не могат да се почистят. Много съм"
    " недоволен от вашето обслужване. С уважение, Щерьо Ямболски",
    "el": "Καλημέρα σας, η καρέκλα που παρήγγειλα πριν από τρεις εβδομάδες δεν έχει φτάσει"
    " ακόμη. Τηλεφώνησα δύο φορές και μου είπαν ότι το δέμα είναι ήδη στον δρόμο."
    " Παρακαλώ ελέγξτε πού βρίσκεται και απαντήστε μου το συντομότερο. Αν αυτό δεν είναι"
    " δυνατό, θέλω πίσω τα χρήματά μου. Επιπλέον ο καναπές είναι χαλασμένος και οι"
    " λεκέδες δεν καθαρίζονται. Είμαι πολύ δυσαρεστημένη. Με εκτίμηση, Ελένη",
    "he": "שלום רב, הכיסא שהזמנתי לפני שלושה שבועות עדיין לא הגיע. התקשרתי פעמיים ואמרו לי"
    " שהחבילה כבר בדרך. אנא בדקו היכן היא נמצאת והשיבו לי בהקדם האפשרי. אם הדבר אינו"
    " אפשרי, אני רוצה את הכסף בחזרה. נוסף על כך הספה פגומה ואי אפשר לנקות את הכתמים. אני"
    " מאוד לא מרוצה מהשירות שלכם, כי כבר שילמתי את הכול מראש. בברכה, רחל כהן מתל אביב",
    "ar": "السلام عليكم، الكرسي الذي طلبته قبل ثلاثة أسابيع لم يصل حتى الآن. اتصلت بكم مرتين"
    " وقيل لي إن الطرد في الطريق. أرجو التحقق من مكانه والرد علي في أقرب وقت ممكن. إذا لم"
    " يكن ذلك ممكنا فإنني أريد استرداد المبلغ كاملا. كما أن الأريكة متضررة ولا يمكن تنظيف"
    " البقع عنها. أنا غير راضية عن خدمتكم لأنني دفعت الثمن مقدما. مع التحية، فاطمة",
    "th": "สวัสดีค่ะ เก้าอี้ที่ดิฉันสั่งซื้อเมื่อสามสัปดาห์ก่อนยังไม่มาถึง"
    " ดิฉันโทรศัพท์ไปสองครั้งและได้รับแจ้งว่าพัสดุอยู่ระหว่างทาง"
    " กรุณาตรวจสอบว่าสินค้าอยู่ที่ไหนและตอบกลับโดยเร็วที่สุด หากเป็นไปไม่ได้"
    " ดิฉันต้องการเงินคืน นอกจากนี้โซฟายังชำรุดและรอยเปื้อนก็ซักไม่ออก"
    " ดิฉันไม่พอใจกับบริการของคุณมาก ขอแสดงความนับถือ",
    "vi": "Xin chào, chiếc ghế mà tôi đặt mua ba tuần trước vẫn chưa đến. Tôi đã gọi điện hai"
    " lần và được trả lời rằng gói hàng đang trên đường. Xin vui lòng kiểm tra xem hàng"
    " đang ở đâu và trả lời tôi càng sớm càng tốt. Nếu không được, tôi muốn nhận lại"
    " tiền. Ngoài ra ghế sofa bị hỏng và vết bẩn không thể tẩy sạch. Tôi rất không hài"
    " lòng với dịch vụ của quý vị. Trân trọng, Nguyễn Thị Hằng",
    "ja": "お世話になっております。三週間前に注文した椅子がまだ届いていません。二回お電話しまし"
    "たが、荷物はすでに発送済みと言われました。今どこにあるのかを確認し、できるだけ早くご"
    "連絡ください。難しい場合は返金をお願いします。また、ソファーに傷があり、布の汚れも落"
    "ちません。御社のサービスにはとても不満です。代金はすでに支払いました。よろしくお願い"
    "いたします。山田花子より",
    "zh": "您好，我三个星期前订购的椅子到现在还没有送到。我打过两次电话，客服说包裹已经在路上了"
    "。请您查一下货物现在在哪里，并尽快给我回复。如果不能送货，我希望退款。另外，沙发有损"
    "坏，布料上的污渍也洗不掉。我对你们的服务非常不满意，因为我已经提前付清了全部货款。谢"
    "谢，祝工作顺利。王小明",
    "tw": "您好，我三個星期前訂購的椅子到現在還沒有送到。我打過兩次電話，客服說包裹已經在路上了"
    "。請您查一下貨物現在在哪裡，並儘快給我回覆。如果不能送貨，我希望退款。另外，沙發有損"
    "壞，布料上的污漬也洗不掉。我對你們的服務非常不滿意，因為我已經提前付清了全部貨款。謝"
    "謝，祝工作順利。王小明",
    "ko": "안녕하세요. 삼 주 전에 주문한 의자가 아직 도착하지 않았습니다. 두 번이나 전화를"
    " 드렸는데 물건이 이미 배송 중이라고 하셨습니다. 지금 어디에 있는지 확인하시고 가능한"
    " 한 빨리 답장을 주시기 바랍니다. 어렵다면 환불을 받고 싶습니다. 그리고 소파가"
    " 망가졌고 천의 얼룩도 지워지지 않습니다. 서비스에 매우 실망했습니다. 이미 돈을 모두"
    " 냈기 때문입니다. 감사합니다. 김영희 드림",
}
_WESTERN = ("cp1252", "iso8859_15", "mac_roman", "cp850", "cp437")
_CENTRAL = ("cp1250", "iso8859_2", "mac_latin2", "cp852")
_BALTIC = ("cp1257", "iso8859_13", "iso8859_4", "cp775")
_CYRILLIC = ("cp1251", "iso8859_5", "mac_cyrillic", "cp866")
ENCODINGS = {
    **dict.fromkeys(["de", "fr", "es", "it", "pt", "nl", "sv", "da", "no", "fi"], _WESTERN),
    "is": ("cp1252", "iso8859_15", "mac_iceland", "cp850"),
    **dict.fromkeys(["pl", "cs", "sk", "hu", "sl", "hr", "ro"], _CENTRAL),
    **dict.fromkeys(["lt", "lv", "et"], _BALTIC),
    "tr": ("cp1254", "iso8859_9", "mac_turkish", "cp857"),
    "ru": (*_CYRILLIC, "koi8_r"),
    "uk": ("cp1251", "koi8_u", "mac_cyrillic", "cp1125"),
    "bg": _CYRILLIC,
    "el": ("cp1253", "iso8859_7", "mac_greek", "cp737"),
    "he": ("cp1255", "iso8859_8", "cp862"),
    "ar": ("cp1256", "iso8859_6"),
    "th": ("cp874", "tis_620"),
    "vi": ("cp1258",),
    "ja": ("cp932", "euc_jp", "iso2022_jp"),
    "zh": ("gb18030", "hz"),
    "tw": ("big5",),
    "ko": ("cp949", "iso2022_kr"),
}  # fmt: skip


def samples(letters: int, step: int | None = None) -> Iterator[tuple[str, str, str]]:
    """Yield the language, encoding and text of pieces of about so many letters.

    Each piece begins and ends at a space, where its language has them, and has at least one
    letter beyond ASCII that its encoding can write.
    """
    for language, whole in LETTERS.items():
        for piece in _pieces(whole, letters, step or max(letters // 2, 20)):
            for encoding in ENCODINGS[language]:
                text = writable(piece, language, encoding)
                if text is not None and not text.isascii():
                    yield language, encoding, text


def writable(text: str, language: str, encoding: str) -> str | None:
    """Return the text as its users write it in an encoding; None where they cannot."""
    if encoding == "cp1258":
        import unicodedata

        text = _for_cp1258(unicodedata.normalize("NFC", text))
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return None
    return text


def _for_cp1258(text: str) -> str:
    """Return Vietnamese with its tones as characters of their own, as cp1258 has them."""
    import unicodedata

    written = ""
    for character in text:
        try:
            character.encode("cp1258")
            written += character
        except UnicodeEncodeError:
            base, *marks = unicodedata.normalize("NFD", character)
            tones = "".join(
                mark for mark in marks if mark in "\u0300\u0301\u0303\u0309\u0323"
            )
            others = "".join(mark for mark in marks if mark not in tones)
            written += unicodedata.normalize("NFC", base + others) + tones
    return written


def _pieces(text: str, letters: int, step: int) -> Iterator[str]:
    if " " not in text:
        for start in range(0, max(1, len(text) - letters + 1), step):
            yield text[start : start + letters]
        return
    words = text.split(" ")
    seen: set[str] = set()
    for first in range(0, len(words), max(1, step // 6)):
        piece = ""
        for word in words[first:]:
            piece = f"{piece} {word}".strip()
            if len(piece) >= letters:
                break
        if len(piece) >= letters * 0.8 and piece not in seen:
            seen.add(piece)
            yield piece
