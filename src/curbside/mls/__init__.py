"""RFC 9420 on the primitives of `curbside.crypto`.

`curbside.mls.public` is what a server may use; `curbside.mls.group` and what it imports hold secrets.
This file stays empty of imports so that the public side never drags the secret side in (INV-01).
"""
