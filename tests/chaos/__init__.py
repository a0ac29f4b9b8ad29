"""The kill harness: real runs killed at every place, judged by a provider and a database that outlive them.

What it cannot show. A killed process leaves the page cache behind, so a missing fsync is not seen here. The provider
bills every request on arrival, also one whose client is gone: the real rule for abandoned calls is not known, and this
is the worst one. An answer that left the provider less than `judge.LANDING_S` before the death counts as in flight,
within the victim's own number of workers. Most victims are forked from a process that has done its imports; one trial
in ten starts whole processes.

What belongs to one job is its stage: `summaries`; `vectors` with `vectors_judge` (missing, extra, mispaired, flagged
before a reader could find them) and `shelves` (where vectors lie, and when each became visible). The rest is shared.
Of vectorize the texts paid twice are held against the texts in flight; requests are small there, so that forty rows are
several. Whose vectors a row leaves that is deleted while it is asked about, no run says: `catchup verify` does.
"""
