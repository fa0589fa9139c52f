"""What crosses the network: frames, bodies, content. No logic; TypeScript is generated from here."""
