"""The test vectors of schemas/vectors: one file for each rule of schemas/envelope.md, written deterministically.

`envelopes`, `times` and `bodies` hold the cases, `case` what a case is, `write` puts them on disk.
"""
