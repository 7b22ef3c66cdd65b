"""The doctor: says what is wrong with a device, in plain words, and how to mend it.

    findings      the closed set of what it can find, each with its remedy
    files         what the device's own files hold
    certificate   the leaf, whatever is wrong with it, and the way from it to a trusted root
    records       what the gate's machine knows: control records, keyring, trust bundle, its own certificate
    reach, tls    a host and port: name, TCP, the right server, and what answers where TLS does not
    mqtt, https   a real connection as the device, and what the gate says of it
    connack       what a server answers to an MQTT CONNECT, or instead of it
    clocks        this machine's clock beside the gate's
    examine       the order of the checks
    message       one captured message before the judge (`fleetgate judge`): `capture` reads it, `recall` has the device
                  as the edge has it, `evidence` says what each step had before it

Decides nothing about anybody: who gets in is decided by `accept`, `control` and `judge`, whose own functions are called
here wherever there is one. It changes nothing: it sends no message, writes no file, and claims no number. It connects
only to a server that the device's CA file verifies, and every wait has an end.
"""
