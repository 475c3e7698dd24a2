"""Models that come through the browser: received into a staging folder, unpacked, inspected, then moved to the store.

Nothing of an upload lies in the store before a person confirmed what was recognised in it.
"""
