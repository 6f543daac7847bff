package dev.mlbridge.server;

/** A call ends with this reply; already logged where it had to be. */
final class Refused extends Exception {
  private static final long serialVersionUID = 1;

  final transient Reply reply;

  Refused(Reply reply) {
    super(reply.text(), null, false, false);
    this.reply = reply;
  }
}
