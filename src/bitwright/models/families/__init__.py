"""Facts about each family of language models, as data, and the two readings of it: config -> architecture, names -> roles."""

from __future__ import annotations

from bitwright.models.families.family import Family
from bitwright.models.families.reading import family_of, read_architecture, text_config
from bitwright.models.families.roles import check_shapes, role_shape, roles, tensor_shapes
from bitwright.models.families.table import FAMILIES

__all__ = [
    "FAMILIES",
    "Family",
    "check_shapes",
    "family_of",
    "read_architecture",
    "role_shape",
    "roles",
    "tensor_shapes",
    "text_config",
]
