"""A server of OURS that speaks the protocol of Google Cloud KMS, for tests on loopback.

Google's own fake (fakekms) is a Go module that can't be had from the module registries used here,
so this stands in for it: gRPC over the protobufs that Google publishes with google-cloud-kms. Nobody
at Google wrote or checked it. It is written from Google's published reference alone, with tables of
its own, and shares no code with the backend that it tests.

What is real: the cryptography, the states and what they refuse, paging, checksums (CRC32C), labels,
primary versions, rotation by schedule, import jobs, destruction windows, tokens and permissions.
What is not: everything is in memory; HSM keys are software keys; import jobs share one wrapping key,
to spare processor time; a version that Google would make in the background is ready after it was
looked at once; the time can be moved by a file (clock.py), which is no part of the protocol.
"""
