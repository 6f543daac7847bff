package dev.mlbridge;

/** How much a file may do. */
public enum Trust {
  /** Be read: nothing of it is executed. */
  DATA,
  /** Be read with types that were named. */
  AUDITED,
  /** Run code: jars, Spark in this JVM. */
  CODE
}
