"""Who may do what: tenants, vehicles, devices, credentials, quarantine cases, decisions, and the keys they stand on.

The edge reads here and never writes; load writes only transitions of quarantine; the rest are a person's commands:
devices.py, retirement.py and vehicles.py say what may happen to a device over its life, credentials.py what becomes of
its certificates, bulk.py how many are enrolled at once, rotation.py what may happen to a root key;
audit.py tells who did what, and why.

The signer, a process of its own, is here too. Heads: heads.py says what is signed, signer.py has rules and socket,
signing.py how it is asked, signlog.py and auditkey.py what it keeps. Renewals: renewal.py has the rules,
renewalservice.py socket and limits, renewalform.py how it is asked, sealing.py how a MAC key is sealed for its device.
"""
