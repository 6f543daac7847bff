/** Tensors of the Open Inference Protocol to arrays and back; shared by client and server. Internal. */
package dev.mlbridge.wire;
