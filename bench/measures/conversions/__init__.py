"""Which published networks convert: each in a process of its own, the answers in a ledger."""
