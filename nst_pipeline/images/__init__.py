"""Images: bytes of a file to upright sRGB pixels and back, and animations.

PIL's (width, height) is met here and where a preview's sheet is drawn; everywhere else a size is
(height, width). It must not know of folders, jobs or tensors.
"""
