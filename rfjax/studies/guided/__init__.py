"""The study of guided networks, on episodes of digits that training has not seen.

networks     what is trained: forms of fusion, from an encoder that knows the other digits
measuring    what a trained network is asked, by ways, shots and points; kept on disk
tables       what the tables show, and what is claimed of them
report       tables, verdicts and curves
command      the program's arguments, and what they do
"""
