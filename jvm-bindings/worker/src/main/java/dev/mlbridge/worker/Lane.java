package dev.mlbridge.worker;

import dev.mlbridge.Call;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Signature;
import dev.mlbridge.frames.Frame;
import dev.mlbridge.frames.FrameChannel;
import dev.mlbridge.frames.FrameType;
import java.io.IOException;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;

/** One connection and its thread: read a question, do, answer; exactly one answer a question. */
final class Lane {
  private final FrameChannel channel;
  private final Host host;
  private final Object lock = new Object();
  private Optional<Thread> running = Optional.empty(); // guarded by lock, as the next two
  private Optional<Call> current = Optional.empty();
  private int request;

  Lane(FrameChannel channel, Host host) {
    this.channel = channel;
    this.host = host;
  }

  /** Serves until the connection ends, then ends the process. */
  void serve() {
    try {
      while (true) {
        Frame question = channel.read();
        if (question.type() == FrameType.CLOSE && question.integer("model").isEmpty()) {
          break;
        }
        answer(question);
      }
    } catch (IOException | MlbridgeException ended) {
      // the parent is gone, or speaks another language: there is nobody left to tell
    } catch (Throwable broken) { // a process whose lane is gone would leave its parent waiting
      broken.printStackTrace();
      System.exit(1);
    }
    System.exit(0);
  }

  private void answer(Frame question) throws IOException {
    Frame answer = ask(question);
    try {
      channel.write(answer);
    } catch (MlbridgeException tooLarge) { // nothing of it has been sent
      channel.write(Errors.frame(tooLarge, question.requestId()));
    }
  }

  private Frame ask(Frame question) {
    int id = question.requestId();
    try {
      return switch (question.type()) {
        case RUN -> new Frame(FrameType.RESULT, id, run(question));
        case LOAD -> load(question);
        case PING -> new Frame(FrameType.PONG, id, question.tensors());
        case CLOSE -> {
          host.close(question.integer("model").orElse(0));
          yield new Frame(FrameType.RESULT, id, Map.of());
        }
        default ->
            throw MlbridgeException.of(Kind.BRIDGE, "a worker is never sent " + question.type());
      };
    } catch (ThreadDeath e) {
      throw e;
    } catch (Throwable e) { // errors too: a model's stack overflow is its own, the process goes on
      return Errors.frame(Errors.of(e, question.type() == FrameType.LOAD), id);
    }
  }

  private Frame load(Frame question) {
    Signature signature = host.load(question);
    Frame.Fields out = new Frame.Fields().put("device", "jvm");
    if (question.text("signature").isEmpty()) {
      out.put("signature", signature.toJson());
    }
    return out.frame(FrameType.RESULT, question.requestId());
  }

  private Map<String, dev.mlbridge.Tensor> run(Frame question) throws Exception {
    Optional<Duration> timeout =
        Host.seconds(question).map(s -> Duration.ofNanos((long) (Math.min(s, 1e9) * 1e9)));
    Call call = Call.of(question.texts("@outputs"), timeout);
    synchronized (lock) {
      running = Optional.of(Thread.currentThread());
      current = Optional.of(call);
      request = question.requestId();
    }
    try {
      return host.run(question, call);
    } catch (Throwable e) {
      if (call.cancelled()) {
        throw MlbridgeException.of(Kind.CANCELLED, "the call was cancelled").withCause(e);
      }
      throw e;
    } finally {
      synchronized (lock) { // from here on no interrupt can come: it would close the connection
        running = Optional.empty();
        current = Optional.empty();
        Thread.interrupted();
      }
    }
  }

  /** Ends the request if it is still running here. */
  void cancel(int requestId) {
    synchronized (lock) {
      if (running.isPresent() && request == requestId) {
        current.ifPresent(Call::cancel);
        running.get().interrupt();
      }
    }
  }
}
