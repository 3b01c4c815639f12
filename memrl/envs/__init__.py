"""The tasks. Importing this package registers them with Gymnasium under ``memrl/<name>-v0``.

``gymnasium.make`` gives one environment, ``gymnasium.make_vec`` the native vector environment;
both take the keyword arguments of the vector environment's constructor.

A module here that defines ``GYMNASIUM_NAMES``, from name to vector class, is registered by that.
"""

from functools import partial
from importlib import import_module
from pkgutil import iter_modules

import gymnasium

from memrl.envs.single import make_single

for _module in iter_modules(__path__, f"{__name__}."):
    _code = import_module(_module.name)
    for _name, _class in getattr(_code, "GYMNASIUM_NAMES", {}).items():
        _id, _vector = f"memrl/{_name}-v0", f"{_module.name}:{_class}"
        if _id not in gymnasium.registry:  # a second import must not warn of overriding
            _single = partial(make_single, _vector)
            _single.metadata = getattr(_code, _class).metadata  # type: ignore[attr-defined]
            gymnasium.register(_id, entry_point=_single, vector_entry_point=_vector)
