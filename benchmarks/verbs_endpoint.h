// One end of the verbs benchmark: a TCP connection to the other end for arrangements, and one RC queue pair
// with a registered buffer in each direction. Written against <infiniband/verbs.h> only.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace tbt::bench {

inline constexpr size_t kBufferBytes = 1 << 20;
inline constexpr uint32_t kSendDepth = 512;
inline constexpr uint32_t kRecvDepth = 512;
inline constexpr uint32_t kInlineBytes = 64;

// The TCP side channel. A peer that is gone ends the program.
class Channel {
 public:
  static Channel listen(uint16_t port);
  static Channel connect(const std::string& host, uint16_t port);
  explicit Channel(int fd) : fd_(fd) {}
  Channel(Channel&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  ~Channel();

  void send(const void* bytes, size_t size);
  // False if the other end has closed the connection.
  bool receive(void* bytes, size_t size);

  template <typename T>
  void put(const T& value) {
    send(&value, sizeof value);
  }
  template <typename T>
  bool get(T& value) {
    return receive(&value, sizeof value);
  }

 private:
  int fd_ = -1;
};

class Endpoint {
 public:
  // Opens the first device (or `device`), and connects with whoever is at the end of the channel.
  Endpoint(Channel& channel, const std::string& device);
  ~Endpoint();
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

  // The buffer that goes out, and the one that the peer writes into and that receives land in.
  [[nodiscard]] std::byte* out() const { return memory_.get(); }
  [[nodiscard]] std::byte* in() const { return memory_.get() + kBufferBytes; }
  [[nodiscard]] uint32_t reads_max() const { return reads_max_; }

  void post_recv(size_t bytes);
  // Sends `bytes` of out(), or fetches them into in() for READ; inline where it fits and may be.
  void post(ibv_wr_opcode opcode, size_t bytes, bool signaled);
  // Completions taken (0 or more); ends the program at one with an error.
  int poll_sends();
  int poll_recvs();

 private:
  struct Address;
  struct Free {
    void operator()(std::byte* memory) const;
  };
  void open(const std::string& device);
  void create_qp();
  void connect_qp(const Address& peer);
  int poll(ibv_cq* cq);

  std::unique_ptr<std::byte, Free> memory_;
  ibv_context* context_ = nullptr;
  ibv_pd* pd_ = nullptr;
  ibv_mr* mr_ = nullptr;
  ibv_cq* send_cq_ = nullptr;
  ibv_cq* recv_cq_ = nullptr;
  ibv_qp* qp_ = nullptr;
  uint32_t inline_max_ = 0;
  uint32_t reads_max_ = 1;
  uint64_t peer_in_ = 0;
  uint64_t peer_out_ = 0;
  uint32_t peer_rkey_ = 0;
};

}  // namespace tbt::bench
