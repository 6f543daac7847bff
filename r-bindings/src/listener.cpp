#include "listener.h"

#include <grpcpp/health_check_service_interface.h>
#ifdef MLB_REFLECTION
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/impl/server_builder_option.h>
#endif

#include <algorithm>
#include <chrono>

namespace mlb {
namespace {

#ifdef MLB_REFLECTION
// The library adds reflection to every server of the process, and has no place for a token: with one it is off.
struct NoReflection final : grpc::ServerBuilderOption {
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    const auto reflects = [](const auto& plugin) { return plugin->name() == "proto_server_reflection"; };
    plugins->erase(std::remove_if(plugins->begin(), plugins->end(), reflects), plugins->end());
  }
};
#endif

// `tls`: NULL, or a list of PEM texts key, certificate, client_authority ("" where clients need no certificate).
std::shared_ptr<grpc::ServerCredentials> credentials_of(const SEXP given) {
  if (Rf_isNull(given)) return grpc::InsecureServerCredentials();
  const Rcpp::List tls(given);
  const auto authority = Rcpp::as<std::string>(tls["client_authority"]);
  grpc::SslServerCredentialsOptions options(authority.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                                              : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = authority;
  options.pem_key_cert_pairs.push_back({Rcpp::as<std::string>(tls["key"]), Rcpp::as<std::string>(tls["certificate"])});
  return grpc::SslServerCredentials(options);
}

}  // namespace

bool Listener::start(const Rcpp::List& settings) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(Rcpp::as<std::string>(settings["address"]), credentials_of(settings["tls"]), &port_);
  builder.RegisterService(&service_);
  builder.RegisterService(&bridge_);
  builder.SetMaxReceiveMessageSize(Rcpp::as<int>(settings["max_message_mib"]) << 20);
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, Rcpp::as<bool>(settings["share_port"]) ? 1 : 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 256);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
#ifdef MLB_REFLECTION
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();  // of this process, once; without the call the linker drops the library
  if (door_.asks_for_token()) builder.SetOption(std::make_unique<NoReflection>());
#endif
  server_ = builder.BuildAndStart();
  if (server_) serving(true);
  return server_ != nullptr;
}

void Listener::serving(bool yes) {
  auto* health = server_ ? server_->GetHealthCheckService() : nullptr;
  if (!health) return;
  health->SetServingStatus(yes);
  health->SetServingStatus(kService, yes);
}

void Listener::close() {
  if (!server_) return;
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  server_->Wait();
  server_.reset();
}

}  // namespace mlb
