"""HTTP routes: parse, ask a service, answer. No decisions here."""
