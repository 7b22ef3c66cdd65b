"""The vehicles' door: from a socket to the spool, and back with an acknowledgement.

tls, https, loop   sockets: who may speak            mqtt, packets, http   what is spoken
registry, fleet    who is that, what do we know      admission             may it send now
intake             the road: judge, append, commit   standing              how a device stands
answers            what it is told                   edge, recovery        the process
"""
