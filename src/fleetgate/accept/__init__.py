"""The vehicles' door: from a socket to the spool, and back with an acknowledgement.

The process      edge puts the rooms together, recovery brings back what it knew and checkpointing saves it, upkeep is
                 what is done every so often. material replaces certificates and keys while it runs, descriptors says
                 how many may connect at all, counts has Prometheus' figures.
MQTT             entrance lets connections in, loop reads them and answers: connection is one of them, connections
                 all of them, turns and lines say who is read from and when, stall cuts a read that does not end.
                 packets are the bytes, mqtt is what is spoken.
HTTPS            https is the server, http what is spoken, request what is in a body, link whose request it is, problems
                 how it is refused.
Who is that      tls has the handshake, vetting says whom a certificate speaks for, lists and fetching whether a
                 revocation list ends that; proxies, proxyprotocol and clientcert who comes through a proxy, as it says.
                 door lets in whom registry finds, denials is what speaks against one; changes is what control has
                 decided since, contact whether it answers. known is a device in memory, fleet all of them. renew
                 carries its request for a next credential to the signer, which decides.
May it send now  limits says who shares which, limitlog which is used up, handshakes whom one is charged to,
                 strangers what those get whom nobody knows, brake how fast one may be refused. room says whether it
                 can be stored, timekeeping whether our own clock is right.
The road         intake judges, appends and commits; rejections is what it refused, answers what the device is told.
How it stands    disorder says which way its numbers go, standing what its score calls for, scorekeeper scores and
                 moves it, causes says what for. What is the mistake of many is not held against each: surge, census,
                 breaker. issuertrouble tells whose CA is in trouble, witness writes down what was refused.
"""
