// Calls through libjson-rpc-cpp, as it comes, and prints the number it was given and the kind of a refusal. It opens a
// connection for each call.
// c++ -std=c++14 -I/usr/include/jsoncpp libjsonrpccpp.cc -ljsonrpccpp-client -ljsonrpccpp-common -ljsoncpp
// ./a.out SOCKET
#include <iostream>
#include <jsonrpccpp/client.h>
#include <jsonrpccpp/client/connectors/unixdomainsocketclient.h>

int main(int, char **argv) {
  jsonrpc::UnixDomainSocketClient connector(argv[1]);
  jsonrpc::Client client(connector);
  Json::Value params;
  params["type"] = "CPP";
  std::cout << client.CallMethod("sequence.next", params)["id"].asString() << std::endl;
  params["count"] = 0;
  try {
    client.CallMethod("sequence.reserve", params);
  } catch (const jsonrpc::JsonRpcException &error) {
    std::cout << error.GetData()["kind"].asString() << std::endl;
  }
}
