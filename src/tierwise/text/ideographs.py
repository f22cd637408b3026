"""How likely a text is as Chinese, Japanese or Korean, by its frequent characters.

These languages have too many characters to count their pairs: here a character is frequent,
ordinary or rare, where the rare ones are those beyond the first level of the national standard.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

_CHINESE = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下"
    "自之年过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部"
    "其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又"
    "关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯"
    "月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入"
    "几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管"
    "期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像"
    "难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今"
    "切院让识候带导争运您请货款单订送谢公司客户退换发票收"
)
_TAIWANESE = (
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下"
    "自之年過發後作裡用道行所然家種事成方多經麼去法學如都同現當沒動面起看定天分還進好小部"
    "其些主樣理心她本前開但因只從想實日軍者意無力它與長把機十民第公此已工使情明性知全三又"
    "關點正業外將兩高間由問很最重並物手應戰向頭文體政美相見被利什二等產或新己制身果加西斯"
    "月話合回特代內信表化老給世位次度門任常先海通教兒原東聲提立及比員解水名真論處走義各入"
    "幾口認條平系氣題活爾更別打女變四神總何電數安少報才結反受目太量再感建務做接必場件計管"
    "期市直德資命山金指克許統區保至隊形社便空決治展馬科司五基眼書非則聽白卻界達光放強即像"
    "難且權思王象完設式色路記南品住告類求據程北邊死張該交規萬取拉格望覺術領共確傳師觀清今"
    "切院讓識候帶導爭運您請貨款單訂送謝公司客戶退換發票收"
)
_JAPANESE = (
    "日一国会人年大十二本中長出三同時政事自行社見月分議後前民生連五発間対上部東者党地合市"
    "業内相方四定今回新場金員九入選立開手米力学問高代明実円関決子動京全目表戦経通外最言氏"
    "現理調体化田当八六約主題下首意法不来作性的要用制治度務強気小七成期公野協取都和統以機"
    "平総加山思家話世受区領多県続進正安設保改数記院女初北午指権心界支第産結百派点教報済書"
    "府活原先共得解名交資予川向際査勝面委告軍文反元重近千考判認画海参売利組知案道信策集在"
    "件団別物側任引使求所次水半品昨論計死官増係感特情投示変打男基私各始島直両朝革価式確村"
    "提運終挙果西勢減台広容必応演電歳住争談能無再位置企真流格有疑口過局少放税検藤町常校料"
    "沢裁状工建語球営空職証土与急止送援供可役構木割聞身費付施切由説転食比難防補車優夫研収"
    "断井何南石足違消境神番規術護展態導鮮備宅害配副算視条幹独警宮究育席輸訪楽起万着乗店述"
    "残想線率病農州武声質念待試族象銀域助労例衛然早張映限親額監環験追審商葉義伝働形景落欧"
    "担好退準賞訴辺造英被株頭技低毎様注致願"
)
_KOREAN = (
    "이다는의에가을한고를하사지기로아대도서자어인정일시리나수있해부전으과그장제보성상라원"
    "선들연주구조경국공스만년우여동신안비것요습니까은와면던않았었했된되게러세내더할때문진"
    "행법위화소유생적간중개방물발명교미무회당차관등통치속민본단계별남감각양받드려입금후학"
    "번호약분실오말결"
)
_CHINESE_SIGNS = "，。、；：？！“”‘’（）《》—…　"
_TAIWANESE_SIGNS = "，。、；：？！「」『』（）《》—…　"
_JAPANESE_SIGNS = "、。・「」『』（）ー？！：…〜～　々"
_UNKNOWN = 1e-7


def ideographic_likelihood(text: str) -> tuple[float, str]:
    """Return the logarithm of a text's probability in the likeliest of these languages.

    Of its characters beyond ASCII: those in ASCII are not counted.
    """
    counts = Counter(character for character in text if not character.isascii())
    best = (-math.inf, "")
    for language, probability in _PROBABILITIES.items():
        # characters count as independent: here their frequency alone tells the languages apart
        log = sum(n * math.log(probability(c)) for c, n in counts.items())
        if log > best[0]:
            best = (log, language)
    return best


@cache
def _chinese(character: str) -> float:
    if character in _CHINESE_SIGNS:
        return 0.01
    if character in _CHINESE:
        return 1.4e-3
    return _by_level(character, "gb2312", (0xB0, 0xD7), (0xB0, 0xF7))


@cache
def _taiwanese(character: str) -> float:
    if character in _TAIWANESE_SIGNS:
        return 0.01
    if character in _TAIWANESE:
        return 1.4e-3
    return _by_level(character, "big5", (0xA4, 0xC6), (0xA4, 0xF9))


@cache
def _japanese(character: str) -> float:
    if "\u3041" <= character <= "\u3093":
        return 6e-3
    if "\u30a1" <= character <= "\u30f6":
        return 1e-3
    if "\uff66" <= character <= "\uff9f":
        return 1e-4
    if character in _JAPANESE_SIGNS:
        return 0.01
    if character in _JAPANESE:
        return 6e-4
    return _by_level(character, "euc_jp", (0xB0, 0xCF), (0xB0, 0xF4))


@cache
def _korean(character: str) -> float:
    if character in _KOREAN:
        return 6e-3
    return _by_level(character, "euc_kr", (0xB0, 0xC8), (0xB0, 0xC8))


def _by_level(
    character: str, standard: str, ordinary: tuple[int, int], rare: tuple[int, int]
) -> float:
    """Return the probability of a character by its place in a national standard."""
    try:
        place = character.encode(standard)
    except UnicodeEncodeError:
        return _UNKNOWN
    if len(place) != 2:
        return _UNKNOWN
    if ordinary[0] <= place[0] <= ordinary[1]:
        return 1e-4
    if rare[0] <= place[0] <= rare[1]:
        return 2e-6
    if "\uff01" <= character <= "\uff5e":
        return 1e-4  # ASCII in full width
    return 1e-6


_PROBABILITIES = {
    "zh": _chinese,
    "zh-TW": _taiwanese,
    "ja": _japanese,
    "ko": _korean,
}
