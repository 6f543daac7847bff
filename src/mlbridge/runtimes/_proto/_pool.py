"""The descriptor pool that all generated messages share: stock clients in one process own the default pool's names."""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
