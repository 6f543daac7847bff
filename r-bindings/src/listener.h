// gRPC's own server with the services, health and reflection, and its limits.
#pragma once

#include <Rcpp.h>

#include <memory>

#include "service.h"

namespace mlb {

class Listener {
 public:
  explicit Listener(Door& door, std::string version) : door_(door), service_(door, std::move(version)), bridge_(door) {}
  ~Listener() { close(); }

  // Whether the address could be taken. `settings`: list(address, tls, max_message_mib, share_port).
  bool start(const Rcpp::List& settings);

  int port() const { return port_; }

  // Health's word to those who watch.
  void serving(bool yes);

  void close();

 private:
  Door& door_;
  Service service_;
  BridgeService bridge_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

}  // namespace mlb
