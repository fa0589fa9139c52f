"""Backups: encrypted to a key that the server does not have, incremental, verified without being restored.

recipient   the key pair: its public half makes backups, its private half is kept offline
place       where backups lie: a folder or an object store
sealing     objects and manifests: what is encrypted, signed and hashed, and how it hangs together
create      one more backup of a running server
chain       all manifests of a place, in order, and what is wrong with them
verify      every object, hash and row, without restoring
restore     a new organisation's folder out of a backup
"""
