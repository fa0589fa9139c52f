"""The server: Delivery Service and Authentication Service (RFC 9750). It never holds a content key."""
