"""Who may do what: tenants, vehicles, devices, credentials, quarantine cases, decisions, and the keys they stand on.

The edge reads here and never writes; load writes only transitions of quarantine; the rest are a person's commands.
"""
