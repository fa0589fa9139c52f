"""What other implementations cannot say, and where they are wrong.

Keys are (scenario, creator's side, other side), values what is answered.

The lists are exact: a scenario that is listed must end with just this text, every other one must pass.
"""

from __future__ import annotations

from .driver import CURBSIDE, MLS_RS, TS_MLS

Case = tuple[str, str, str]

# The Python API of mls-rs has no external commits, no PSKs, no private handshakes, no extensions, no AAD.
_WITH_MLS_RS: dict[str, tuple[str | None, str | None]] = {
    # scenario: (curbside creates, mls-rs creates)
    "tree_beside_the_welcome": (None, "commit: tree"),
    "add_and_remove_in_one_commit": (None, "commit: adds and removes in one commit"),
    "update_proposed_by_creator": (None, "propose: propose an update"),
    "update_proposed_by_joiner": ("propose: propose an update", None),
    "private_proposal_by_creator": (None, "propose: wire"),
    "outsider_of_the_joiners_side": ("external_commit", "group_info"),
    "outsider_of_the_creators_side": (None, "group_info"),
    "outsider_fills_a_blank_leaf": ("external_commit", "group_info"),
    "resync_of_the_joiner": ("external_commit", "group_info"),
    "device_replaced_by_resync": (None, "group_info"),
    "external_sender_removes": ("process: External and NewMember proposal senders are not supported", "signer_new"),
    "creator_commits_privately": (None, "commit: wire"),
    "joiner_commits_privately": ("commit: wire", None),
    "external_psk": ("psk", "psk"),
    "external_psk_in_a_welcome": ("psk", "psk"),
    "group_context_extension_of_our_own": ("key_package: extensions", "create_group: extensions"),
    "group_context_extension_of_the_rfc": (None, "signer_new"),
    "authenticated_data": ("process: aad", "encrypt: aad"),
}
# ts-mls 1.6.4 has no function that proposes an Update.
_WITH_TS_MLS: dict[Case, str] = {
    ("update_proposed_by_creator", TS_MLS, CURBSIDE): "propose an update",
    ("update_proposed_by_joiner", CURBSIDE, TS_MLS): "propose an update",
}
CANNOT_EXPRESS: dict[Case, str] = {
    **{(name, CURBSIDE, MLS_RS): ours for name, (ours, _) in _WITH_MLS_RS.items() if ours},
    **{(name, MLS_RS, CURBSIDE): theirs for name, (_, theirs) in _WITH_MLS_RS.items() if theirs},
    **_WITH_TS_MLS,
}
