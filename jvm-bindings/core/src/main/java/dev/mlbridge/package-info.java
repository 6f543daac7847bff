/** A model is a signature and a function from named tensors to named tensors; {@link dev.mlbridge.Session} is that. */
package dev.mlbridge;
