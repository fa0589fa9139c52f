"""Looking at a whole installation, from outside the server and without changing anything.

findings    what one look found: ok, warn or fail, a sentence, and what to do
files       configuration, keys, permissions, room on disks, certificates
stored      the database, the audit log, backups
network     the public addresses, NATS, the storage of attachments
examine     all of it, in order
"""
