"""Public weights into pipelines of ours and back: MVDream, AnimateDiff, IP-Adapter, Animate3D.

Every tensor is taken by a rule that names it, compared in shape, and refused where it is no number; nothing is ever
loaded loosely.
"""
