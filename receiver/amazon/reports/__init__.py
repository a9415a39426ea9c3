"""Pure. Amazon Pay's reports as flat files: refund data and settlement data.

`reader.read` turns the bytes of a file into rows; what cannot be read is refused line by line, with the reason.
"""
