"""Pages as pictures: scans, photographs and faxes.

rendering      a page of a PDF or a picture becomes a bitmap, with limits on its size
recognizer     text recognition (OCR): a bitmap becomes lines with words, boxes and confidence
reading_order  lines become rows in the order in which a person reads them
page_text      rows become the page's text, and the words with their places in it
text_layer     the words of a page that has its text in letters, with their places
pictures       the reader of picture files
"""
