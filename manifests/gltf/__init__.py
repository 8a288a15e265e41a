"""glTF 2.0 in numpy: a bounded reader, a poser true to the specification, a deterministic writer, and OBJ beside it.

Nothing here imports Blender, and Blender never reads an asset itself: what it gets is `static_glb`.
"""

from manifests.gltf.animation import sample, slerp
from manifests.gltf.document import read, read_bytes
from manifests.gltf.limits import Limits
from manifests.gltf.obj import load_obj
from manifests.gltf.pose import Part, Poser, from_z_up, to_z_up
from manifests.gltf.scene import Animation, Asset, Channel, Image, Mesh, Node, Primitive, Skin
from manifests.gltf.static import part_name, static_glb
from manifests.gltf.write import GlbWriter

__all__ = [
    "Animation",
    "Asset",
    "Channel",
    "GlbWriter",
    "Image",
    "Limits",
    "Mesh",
    "Node",
    "Part",
    "Poser",
    "Primitive",
    "Skin",
    "from_z_up",
    "load_obj",
    "part_name",
    "read",
    "read_bytes",
    "sample",
    "slerp",
    "static_glb",
    "to_z_up",
]
