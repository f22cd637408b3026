"""Sentences with personal data, all invented, for measuring what redaction finds and what it does not."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """What kind of data a text holds, and the words that must be gone."""

    kind: str
    secret: str
    text: str


CASES = [
    Case(
        "e-mail address",
        "anna.berg@kontor.example",
        "Write to anna.berg@kontor.example today.",
    ),
    Case(
        "e-mail address",
        "o'neill+orders@shop.co.uk",
        "Reply to o'neill+orders@shop.co.uk, please.",
    ),
    Case("e-mail address", "büro@müller.de", "Schreiben Sie an büro@müller.de."),
    Case(
        "e-mail address",
        "j_d@sub.mail-host.museum",
        "Adresse : j_d@sub.mail-host.museum.",
    ),
    Case("e-mail address", "jane.doe", "Mail me: jane.doe (at) post [dot] example."),
    Case(
        "e-mail address", "anna.berg", "Write to anna.berg@\u200bkontor.example today."
    ),
    Case("phone number", "7946 0958", "Call +44 20 7946 0958 after six."),
    Case("phone number", "7946 0958", "Call 020 7946 0958 after six."),
    Case("phone number", "900123", "my mobile is 07700 900123, thanks"),
    Case("phone number", "555-0173", "Phone: (212) 555-0173"),
    Case("phone number", "555-2671", "tel. +1-415-555-2671"),
    Case("phone number", "901820", "Rufen Sie +49 30 901820 an."),
    Case("phone number", "23456789", "Handy 0151 23456789."),
    Case(
        "phone number", "68\u00a053", "Appelez le 01\u00a042\u00a068\u00a053\u00a000."
    ),
    Case("phone number", "6982 1111", "Chiami +39 06 6982 1111."),
    Case(
        "IBAN", "6016 1331", "our new account, IBAN GB29 NWBK 6016 1331 9268 19. Send"
    ),
    Case("IBAN", "60161331", "account GB29NWBK60161331926819."),
    Case("IBAN", "0044 0532", "mit Tippfehler: DE00 3704 0044 0532 0130 00"),
    Case("IBAN", "20041010", "IBAN : FR1420041010050500013M02606"),
    Case("payment card", "1111 1111", "my card 4111 1111 1111 1111 expires in May"),
    Case("payment card", "5500-0000", "Karte 5500-0000-0000-0004"),
    Case("payment card", "378282246310005", "amex 378282246310005"),
    Case("payment card", "4111 1111", "with a slip: 4111 1111 1111 1112"),
    Case("number of an authority", "536-90-4399", "My SSN is 536-90-4399."),
    Case("number of an authority", "12 34 56", "National Insurance AB 12 34 56 C"),
    Case("number of an authority", "943 476", "NHS number 943 476 5919"),
    Case("number of an authority", "86095742719", "Steuer-ID 86095742719"),
    Case(
        "number of an authority", "RSSMRA85T10A562S", "codice fiscale RSSMRA85T10A562S"
    ),
    Case("number of an authority", "C01X00T47", "Reisepass C01X00T47"),
    Case("IP address", "192.0.2.25", "from 192.0.2.25 at noon"),
    Case("IP address", "8a2e:370", "host 2001:db8::8a2e:370:7334."),
    Case("link or handle", "jane.doe", "see https://social.example/jane.doe."),
    Case("link or handle", "jane_doe", "I am @jane_doe there"),
    Case("name, greeting", "Varga", "Dear Ms Varga,\n\nas agreed."),
    Case("name, greeting", "Brandt", "Sehr geehrte Frau Brandt,\n\nwie vereinbart."),
    Case("name, greeting", "Petit", "Chère Madame Petit,\n\ncomme convenu."),
    Case("name, title", "Adeyemi-Hart", "It was Mr Colin Adeyemi-Hart who ordered."),
    Case("name, title", "Lindqvist", "Das hat Herr Lindqvist bestellt."),
    Case("name, signature", "Osei", "Please write.\n\nThank you,\nAmara Osei"),
    Case(
        "name, signature",
        "Halloran",
        "It ran away.\n\nYours, full of admiration,\nP. Halloran",
    ),
    Case("name, signature", "Tom", "I am at home after four.\n\nThanks, Tom"),
    Case(
        "name, signature",
        "Katrin",
        "Danke.\n\nMit freundlichen Grüßen\nKatrin Brandt\nBremen",
    ),
    Case("name, signature", "Élodie", "Bien reçu.\n\nCordialement,\nÉlodie Petit"),
    Case("name, form", "Vance", "Name: T. Vance\nOrder: LF-20255"),
    Case(
        "name, elsewhere",
        "Gil",
        "the gentleman, Gil I believe, who talked me through it",
    ),
    Case("name, elsewhere", "Okafor", "I spoke to Ngozi Okafor about it."),
    Case("name, elsewhere", "Åke", "und mein Sohn Åke war es auch nicht"),
    Case("postal address", "Cobden", "deliver it to 7 Cobden Street, Derby"),
    Case("postal address", "Hafenstraße", "in der Hafenstraße 12 in Bremen"),
    Case("date of birth", "1981", "I was born on 4 March 1981."),
    Case("date of birth", "1981", "geboren am 04.03.1981"),
]
NOT_FOUND = {"name, elsewhere", "postal address", "date of birth"}
HARMLESS = [
    "Order LF-20418 of 2 October for 649.00 pounds, promised for the 9th.",
    "It was 1,538.00 pounds on 2026-10-05 at 14:30.",
    "Display says E04; version 3.8.18 of 12; L4 to S1, 66 cm, 20 minutes.",
    "On 28.09.2026 between 8 and 15 o'clock, 34 desks of 180 x 80 cm.",
    "Bestellung LF-20377 am 6. Oktober 2026, vier Bürostühle.",
    'Your tracking page has said "label created" ever since; 25000.00 USD are at stake.',
    "Why doesn't everyone build drawers like this? What a lovely thing @ 5 each.",
]
