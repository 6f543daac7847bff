/** The frame codec shared with the Python and R workers; its layout is in {@code proto/FRAMES.md}. */
package dev.mlbridge.frames;
