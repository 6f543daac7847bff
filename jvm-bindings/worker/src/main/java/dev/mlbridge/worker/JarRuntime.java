package dev.mlbridge.worker;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Runtime;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.ServiceConfigurationError;
import java.util.ServiceLoader;
import java.util.Set;

/** Hosts a user's class that implements {@link Session}: a Java or Scala class, or a Scala object, in a jar. */
public final class JarRuntime implements Runtime {
  @Override
  public String name() {
    return "jar";
  }

  @Override
  public Set<String> formats() {
    return Set.of("jar");
  }

  @Override
  public Session load(Path path, Optional<Signature> signature, Map<String, String> options) {
    URLClassLoader loader = loader(path);
    Thread thread = Thread.currentThread();
    ClassLoader before = thread.getContextClassLoader();
    thread.setContextClassLoader(loader);
    try {
      Optional<String> name = Optional.ofNullable(options.get("class"));
      Session session = name.isPresent() ? make(loader, name.get(), options) : only(loader, path);
      return new Owned(session, loader);
    } catch (Throwable e) {
      close(loader);
      throw e;
    } finally {
      thread.setContextClassLoader(before);
    }
  }

  private static URLClassLoader loader(Path path) {
    try {
      return new URLClassLoader(new URL[] {path.toUri().toURL()}, JarRuntime.class.getClassLoader());
    } catch (MalformedURLException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static Session only(URLClassLoader loader, Path path) {
    List<Session> found = found(loader);
    if (found.size() != 1) {
      throw MlbridgeException.of(
              Kind.ARTIFACT, path.getFileName() + " names " + found.size() + " sessions in META-INF/services/dev.mlbridge.Session")
          .withHint("name the class behind #: jvm:model.jar#com.acme.Churn");
    }
    return found.get(0);
  }

  private static List<Session> found(URLClassLoader loader) {
    try {
      return ServiceLoader.load(Session.class, loader).stream()
          .filter(p -> p.type().getClassLoader() == loader)
          .map(ServiceLoader.Provider::get)
          .toList();
    } catch (ServiceConfigurationError e) {
      if (e.getCause() instanceof MlbridgeException typed) {
        throw typed;
      }
      throw e;
    }
  }

  private static Session make(URLClassLoader loader, String name, Map<String, String> options) {
    try {
      Class<?> type = find(loader, name);
      Object made = type.getName().endsWith("$") ? type.getField("MODULE$").get(null) : construct(type, options);
      if (made instanceof Session session) {
        return session;
      }
      throw MlbridgeException.of(Kind.ARTIFACT, name + " does not implement dev.mlbridge.Session");
    } catch (InvocationTargetException e) {
      Throwable cause = e.getCause();
      if (cause instanceof MlbridgeException typed) {
        throw typed; // the session's own word for what is wrong
      }
      throw MlbridgeException.of(Kind.ARTIFACT, "the constructor of " + name + " failed: " + cause).withCause(cause);
    } catch (ReflectiveOperationException e) {
      throw MlbridgeException.of(Kind.ARTIFACT, name + " cannot be made: " + e)
          .withHint("it needs a public constructor without parameters, or one that takes a Map of options")
          .withCause(e);
    }
  }

  private static Class<?> find(URLClassLoader loader, String name) {
    Class<?> type;
    try {
      type = Class.forName(name, true, loader);
    } catch (ClassNotFoundException e) {
      throw MlbridgeException.of(Kind.NOT_FOUND, "the jar holds no class " + name)
          .withHint("the name is the full one, package included")
          .withCause(e);
    }
    if (Session.class.isAssignableFrom(type)) {
      return type;
    }
    try {
      return Class.forName(name + "$", true, loader); // a Scala object
    } catch (ClassNotFoundException none) {
      return type;
    }
  }

  private static Object construct(Class<?> type, Map<String, String> options) throws ReflectiveOperationException {
    for (Constructor<?> c : type.getConstructors()) {
      if (c.getParameterCount() == 1 && c.getParameterTypes()[0] == Map.class) {
        return c.newInstance(options);
      }
    }
    return type.getConstructor().newInstance();
  }

  private static void close(URLClassLoader loader) {
    try {
      loader.close();
    } catch (IOException e) {
      Main.log(7, "the jar was not closed: " + e);
    }
  }

  /** The user's session with the loader of its classes, which threads it starts need too. */
  private record Owned(Session inner, URLClassLoader loader) implements Session {
    @Override
    public Signature signature() {
      return inner.signature();
    }

    @Override
    public Map<String, dev.mlbridge.Tensor> run(Map<String, dev.mlbridge.Tensor> feeds, dev.mlbridge.Call call)
        throws Exception {
      Thread thread = Thread.currentThread();
      ClassLoader before = thread.getContextClassLoader();
      thread.setContextClassLoader(loader); // libraries in the jar look up their own parts by it
      try {
        return inner.run(feeds, call);
      } finally {
        thread.setContextClassLoader(before);
      }
    }

    @Override
    public int maxConcurrency() {
      return inner.maxConcurrency();
    }

    @Override
    public void close() {
      try {
        inner.close();
      } finally {
        JarRuntime.close(loader);
      }
    }
  }
}
