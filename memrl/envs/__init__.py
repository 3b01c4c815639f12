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
    _names = getattr(import_module(_module.name), "GYMNASIUM_NAMES", {})
    for _name, _class in _names.items():
        _id, _vector = f"memrl/{_name}-v0", f"{_module.name}:{_class}"
        if _id not in gymnasium.registry:  # a second import must not warn of overriding
            gymnasium.register(
                _id, entry_point=partial(make_single, _vector), vector_entry_point=_vector
            )
