"""Child process: what Blender's own importer makes of glTF files, for the tests to compare with.

``python blender_pose.py JOB.json OUT.npz``. The job is a list of ``{"path", "poses": [[animation, time_s], ...]}``;
animation -1 leaves everything as imported. Writes for job i, object k and pose j the arrays ``i/k/vertices`` (poses,
N, 3) in the world, ``i/k/triangles`` and one JSON text with the objects' names. Knows nothing of the code under test.
"""

import json
import sys

import bpy
import numpy as np

FPS = 24


def world_vertices(item: bpy.types.Object) -> np.ndarray:
    """(N, 3) of the evaluated mesh."""
    evaluated = item.evaluated_get(bpy.context.evaluated_depsgraph_get())
    mesh = evaluated.to_mesh()
    local = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", local)
    evaluated.to_mesh_clear()
    matrix = np.array(evaluated.matrix_world)
    return local.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]


def reset(poses: dict, items: list) -> None:
    """Back to the state right after the import, so that no animation leaks into the next.

    What the file's first animation moves has then already moved: compare the pose at rest in a file without animations.
    """
    for item in items:
        item.animation_data_clear()
        item.matrix_basis = poses[item.name]
        if item.type == "ARMATURE":
            for bone in item.pose.bones:
                bone.matrix_basis = poses[item.name, bone.name]
        keys = getattr(item.data, "shape_keys", None)
        if keys is not None:
            keys.animation_data_clear()
            for block in keys.key_blocks:
                block.value = poses[item.name, "key", block.name]


def assign(action: bpy.types.Action, items: list) -> None:
    """Give every datablock that has a slot in the action that slot."""
    for item in items:
        for data, prefix in ((item, "OB"), (getattr(item.data, "shape_keys", None), "KE")):
            if data is None:
                continue
            for slot in action.slots:
                if slot.identifier == prefix + item.name:  # the importer names the slot of shape keys after the object
                    animation = data.animation_data_create()
                    animation.action = action
                    animation.action_slot = slot


def run(path: str, poses: list) -> tuple[list[str], list[np.ndarray], list[np.ndarray]]:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.scene.render.fps = FPS
    before = list(bpy.data.actions)
    bpy.ops.import_scene.gltf(filepath=path, disable_bone_shape=True)
    with open(path, "rb") as file:
        data = file.read()
    if data[:4] == b"glTF":
        data = data[20 : 20 + int.from_bytes(data[12:16], "little")]
    names = [entry.get("name", "") for entry in json.loads(data).get("animations", [])]
    actions = {action.name: action for action in bpy.data.actions if action not in before}
    items = list(bpy.context.scene.objects)
    start: dict = {}
    for item in items:
        start[item.name] = item.matrix_basis.copy()
        if item.type == "ARMATURE":
            for bone in item.pose.bones:
                start[item.name, bone.name] = bone.matrix_basis.copy()
        keys = getattr(item.data, "shape_keys", None)
        for block in [] if keys is None else keys.key_blocks:
            start[item.name, "key", block.name] = block.value
    shown = [item for item in items if item.type == "MESH" and item.data.polygons]
    found: list[list[np.ndarray]] = [[] for _ in shown]
    current = None
    for animation, time_s in poses:
        if animation != current:
            reset(start, items)
            if animation >= 0:
                name = names[animation]
                assign(actions[name] if name else next(iter(actions.values())), items)
            current = animation
        frame = time_s * FPS
        bpy.context.scene.frame_set(int(np.floor(frame)), subframe=float(frame - np.floor(frame)))
        for k, item in enumerate(shown):
            found[k].append(world_vertices(item))
    triangles = []
    for item in shown:
        item.data.calc_loop_triangles()
        indices = np.empty(len(item.data.loop_triangles) * 3, np.int32)
        item.data.loop_triangles.foreach_get("vertices", indices)
        triangles.append(indices.reshape(-1, 3))
    return [item.name for item in shown], [np.array(poses_) for poses_ in found], triangles


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        jobs = json.load(file)
    out = {}
    for i, job in enumerate(jobs):
        names, vertices, triangles = run(job["path"], job["poses"])
        out[f"{i}/names"] = np.array(json.dumps(names))
        for k in range(len(names)):
            out[f"{i}/{k}/vertices"], out[f"{i}/{k}/triangles"] = vertices[k], triangles[k]
    np.savez(sys.argv[2], **out)


if __name__ == "__main__":
    main()
