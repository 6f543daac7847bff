package dev.mlbridge.worker;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Runtime;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import javax.xml.stream.XMLInputFactory;
import javax.xml.stream.XMLStreamConstants;
import javax.xml.stream.XMLStreamException;
import javax.xml.stream.XMLStreamReader;
import org.pmml4s.model.Model;

/** Hosts PMML files by pmml4s. A file is data: one with a document type, which could name other files, is refused. */
public final class PmmlRuntime implements Runtime {
  @Override
  public String name() {
    return "pmml";
  }

  @Override
  public Set<String> formats() {
    return Set.of("pmml");
  }

  @Override
  public Session load(Path path, Optional<Signature> signature, Map<String, String> options) {
    refuseDocumentType(path);
    Model model;
    try {
      model = Model.fromPath(path);
    } catch (RuntimeException | StackOverflowError | LinkageError e) {
      throw MlbridgeException.of(Kind.ARTIFACT, "the PMML file does not load: " + e).withCause(e);
    }
    return new PmmlSession(model);
  }

  private static void refuseDocumentType(Path path) {
    XMLInputFactory factory = XMLInputFactory.newFactory();
    factory.setProperty(XMLInputFactory.SUPPORT_DTD, true); // so that one is seen, not skipped
    factory.setProperty(XMLInputFactory.IS_SUPPORTING_EXTERNAL_ENTITIES, false);
    factory.setProperty(XMLInputFactory.IS_REPLACING_ENTITY_REFERENCES, false);
    try (InputStream in = Files.newInputStream(path)) {
      XMLStreamReader reader = factory.createXMLStreamReader(in);
      while (reader.hasNext()) {
        int event = reader.next();
        if (event == XMLStreamConstants.DTD) {
          throw MlbridgeException.of(Kind.ARTIFACT, "the PMML file has a document type, which PMML does not need")
              .withHint("remove <!DOCTYPE ...>");
        }
        if (event == XMLStreamConstants.START_ELEMENT) {
          return;
        }
      }
    } catch (IOException | XMLStreamException e) {
      throw MlbridgeException.of(Kind.ARTIFACT, "the PMML file is not XML: " + e.getMessage()).withCause(e);
    }
  }
}
