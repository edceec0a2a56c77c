"""Whether a replica is equal to its source, and repairing it: verify and reconcile.

Owns the comparison, the second look and the limit on removals. Must not know when one is due, nor how a run is
recorded.
"""

from starbase_data_replication.verify import compare
from starbase_data_replication.verify.canonical_text import CanonicalText
from starbase_data_replication.verify.verify import Check, VerificationResult, allow

__all__ = ["CanonicalText", "Check", "VerificationResult", "allow", "compare"]
