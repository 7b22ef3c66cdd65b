"""The vehicles' door: from a socket to the spool, and back with an acknowledgement.

tls, https, loop, connection, stall   sockets               mqtt, packets, http, request   what is spoken
turns, lines       who is read from, and when
problems           how HTTPS refuses                 link                  whose request it is
proxies, proxyprotocol, clientcert   who comes through a proxy, as it says
vetting, lists, fetching   whom a certificate speaks for, and whether a revocation list ends that
door, registry     who is that, may it come in       fleet, denials        what is known of it
admission, limits, brake   may it send now          timekeeping           is our own clock right
intake             the road: judge, append, commit   standing              how a device stands
disorder           which way its numbers go
breaker, surge, census   what is the mistake of many is not held against each
refusals           whose CA is in trouble
answers            what it is told                   edge, recovery        the process
witness            what is written down of a message that is refused
renew              its next credential: carried to the signer, which decides
material           certificates and keys, replaced while it runs
room               is there room to store it         counts                the figures for Prometheus
descriptors        how many may connect at all
"""
