"""Who may do what: tenants, vehicles, devices, credentials, quarantine cases, decisions, and the keys they stand on.

The edge reads here and never writes. Load writes transitions of quarantine and alerts of edges, with suspicions.py what
it found out about devices, with spools.py what it knows of spools, with watchturns.py which load watches the fleet,
with auditheads.py what the signer signed of the audit, with deliveries.py what webhooks were told. The rest are a
person's commands.

A device's life    devices.py, retirement.py and vehicles.py say what may happen to a device, credentials.py what
                   becomes of its certificates, states.py which state may follow which, quarantine.py what is written
                   of it, casenotes.py what of that stands in a case; reason.py asks a person why. bundle.py hands a
                   device its files. bulk.py enrols many at once, from the list of devicelist.py: newcomers.py those
                   that nothing on record can forbid; their files go where directories.py or archive.py say.
Cohorts            cohorts.py says what one is, breaker.py what people say of it; edgealerts.py has the alerts of edges.
Looking            roster.py shows devices, cases.py the cases of quarantine, releases.py which held events a decision
                   gives back, audit.py who did what, and why; auditchain.py is the chain that its rows are,
                   auditheads.py has the end of it signed.
The records        store.py has transactions, database.py the file, schema.py its tables, migrations.py those of earlier
                   versions. lookup.py finds devices for the edge, records.py is what other rooms see; deliveries.py is
                   what webhooks were told.
Certificates       pki.py is the gate's own authority, csr.py reads requests, profile.py says what a leaf must look
                   like, chain.py whether it has a path to the trust bundle, issuers.py which CA speaks for whom,
                   revocation.py what revocation lists say.
MAC root keys      keyring.py reads them, rotation.py says what may happen to one, secretfile.py how its file is kept.

The signer, a process of its own, is here too. Heads: heads.py says what is signed, signer.py has rules and socket,
signing.py how it is asked, signlog.py and auditkey.py what it keeps. Renewals: renewal.py has the rules,
renewalservice.py socket and limits, renewalform.py how it is asked, sealing.py how a MAC key is sealed for its device.
Both stand on localsocket.py.
"""
