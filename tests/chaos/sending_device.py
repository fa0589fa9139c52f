"""A device that writes line after line until it is killed; each line is told on standard output once it is saved.

python sending_device.py VAULT CONVERSATION ROUND
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from curbside.client.device import Device


async def main(vault: str, conversation: str, number: str) -> None:
    """Write until the end."""
    async with await Device.open(Path(vault), os.environ["CURBSIDE_PASSPHRASE"]) as device:
        await device.connection.wait_caught_up()
        line = 0
        while True:
            text = f"round {number}, line {line}"
            await device.send_text(conversation, text)
            print(text, flush=True)  # noqa: T201  the parent process reads it
            line += 1
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
