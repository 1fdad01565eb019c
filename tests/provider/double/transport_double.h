// A libtbt.so.0 for the tests of provider/: it records what the front door hands down and completes
// what the test tells it to. There is no protocol in it; what the real one does is tested where it
// lives.
#pragma once

#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "tbt/device.h"

namespace tbt::transport_double {

// A work request as it arrived, with copies of what it pointed to.
struct PostedSend {
  SendWr wr;
  std::vector<Sge> sges;
  std::vector<uint8_t> inline_bytes;
};

struct Registration {
  void* addr = nullptr;
  size_t length = 0;
  uint64_t iova = 0;
  uint32_t access = 0;
};

// What the test reads and sets. One per process; reset() between tests.
struct Control {
  std::vector<DeviceInfo> devices;
  bool port_active = true;
  int open_error = 0;
  int destroy_error = 0;       // of every destroy()
  AsyncSink* async = nullptr;  // of the context opened last
  std::vector<PostedSend> sends;
  std::vector<size_t> send_batches;  // how many work requests each post_send brought
  std::vector<RecvWr> recvs;
  size_t refuse_send_at = SIZE_MAX;  // index into `sends` of the first refused one
  int refuse_code = 0;
  std::vector<QpAttr> modifies;
  std::vector<uint32_t> modify_masks;
  QpAttr query_answer;
  std::vector<Registration> registrations;
  std::vector<AddressVector> address_vectors;
  std::vector<QpOptions> qps;
  std::vector<CqOptions> cqs;
  std::vector<bool> arms;                                  // solicited_only of each
  std::vector<std::pair<uint32_t, uint32_t>> moderations;  // count, microseconds
};

TBT_EXPORT Control& control();
TBT_EXPORT void reset();
// Puts a completion into the CQ that was made with this user pointer; an armed CQ raises its event.
TBT_EXPORT void complete(void* user, const Wc& wc);

}  // namespace tbt::transport_double
