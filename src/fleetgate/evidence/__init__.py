"""Evidence: samples of what was refused, kept for the person who decides about a device.

    sample      what is written down of one message       sampling   which are kept of a flood
    keeper      off the road: a queue and its thread       store      the file: bounded, and for how long

Samples explain; they do not count. How often a device was refused is in the spool's rejection records, which are on the
disk before a device is told, and so, each once, in the table `rejections`: that is the exact count, whatever was
sampled or lost here. Nothing in this room is needed to accept a message: its disk may be full or broken.
"""
