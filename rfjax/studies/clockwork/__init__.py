"""The study of networks on clocks: schedules on clips, with networks that were trained on stills.

schedules    what is run over the clips: networks under schedules, and truncated networks
measuring    what a network under a schedule gives, and its time; kept on disk
tables       what the tables show, and what is claimed of them
report       tables, verdicts and the picture of the sweep
command      the program's arguments, and what they do
"""
