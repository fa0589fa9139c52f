"""python -m curbside"""

from __future__ import annotations

from curbside.cli.main import main

main()
