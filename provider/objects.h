// Our verbs objects: the public struct that the application sees, and behind it what we keep.
//
// Each type derives from the public struct, which therefore lies at its address. Objects whose
// public struct may grow in later releases of rdma-core carry a zeroed reserve after it: a program
// built against a newer header may read members there, and must find null pointers rather than our
// data.
//
// Whose an object is, is told by its context's device: ours lie in one static table.
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include "event_queue.h"
#include "tbt/device.h"
#include "verbs_abi.h"

namespace tbt::provider {

inline constexpr size_t kGrowthReserve = 512;
inline constexpr uint8_t kPort = 1;

struct ContextState;
struct Cq;

struct Device final : ibv_device {
  // The real library continues an ibv_device with members of its own (rdma-core's verbs_device) and
  // counts references there when it builds a context. Zero but for that counter.
  std::array<std::byte, kGrowthReserve> real_library_part;
  uint64_t guid;
};

inline constexpr size_t kMaxDevices = 64;
extern std::array<Device, kMaxDevices> device_table;

inline bool is_ours(const ibv_device* device) noexcept {
  const auto first = reinterpret_cast<uintptr_t>(device_table.data());
  return reinterpret_cast<uintptr_t>(device) - first < sizeof device_table;
}
inline bool is_ours(const ibv_context* context) noexcept { return is_ours(context->device); }

inline Device& ours(ibv_device* device) noexcept { return *static_cast<Device*>(device); }

// One completion event of a CQ with a channel.
struct CompletionEvent {
  Cq* cq = nullptr;
  inline void taken() const noexcept;
};

struct CompChannel final : ibv_comp_channel {
  EventQueue<CompletionEvent> queue;
};

// One asynchronous event. `reads` counts the affiliated object's events handed to the application.
struct QueuedAsyncEvent {
  ibv_async_event event{};
  const void* object = nullptr;
  uint32_t* reads = nullptr;
  void taken() const noexcept {
    if (reads != nullptr) ++*reads;
  }
};

class AsyncQueue final : public AsyncSink {
 public:
  bool open() noexcept { return queue_.open(); }
  [[nodiscard]] int fd() const noexcept { return queue_.fd(); }
  void on_async_event(const AsyncEvent& event) noexcept override;
  bool pop(QueuedAsyncEvent& event) noexcept { return queue_.pop(event); }
  void purge(const void* object) noexcept {
    queue_.purge([object](const QueuedAsyncEvent& e) { return e.object == object; });
  }

 private:
  EventQueue<QueuedAsyncEvent> queue_;
};

// Found from an ibv_context through the word behind it (context.cc).
struct ContextState {
  ibv_context* context = nullptr;
  void* allocation = nullptr;          // what free() takes
  verbs_context* real_view = nullptr;  // the context as the real library laid it out
  tbt::Context* impl = nullptr;
  AsyncQueue async;
};

inline ContextState& state_of(ibv_context* context) noexcept {
  return **reinterpret_cast<ContextState**>(context + 1);
}

struct Td final : ibv_td {
  std::atomic<uint32_t> users = 0;  // parent domains
};

// A protection domain, or a parent domain: then `protection` is the one that it extends.
struct Pd final : ibv_pd {
  tbt::Pd* impl = nullptr;  // of a parent domain: its protection domain's
  Pd* protection = nullptr;
  Td* thread = nullptr;
  // Of a parent domain: the objects made on it, which point to it. Of a protection domain: its
  // parent domains; its objects are counted by the transport.
  std::atomic<uint32_t> users = 0;
};

inline constexpr size_t kMaxDmBytes = 256 * 1024;  // of one allocation

struct Dm final : ibv_dm {
  std::array<std::byte, kGrowthReserve> reserve{};
  std::byte* memory = nullptr;
  size_t length = 0;
  std::atomic<uint32_t> users = 0;  // memory regions
};

struct Mr final : ibv_mr {
  // rdma-core keeps the kind of MR and its access here; zero is the plain kind.
  std::array<std::byte, 64> real_library_part{};
  tbt::Mr* impl = nullptr;
  unsigned int access = 0;
  uint64_t iova = 0;
  Dm* device_memory = nullptr;  // what it is a region of
};

struct Mw final : ibv_mw {
  tbt::Mw* impl = nullptr;
};

// Turns the transport's completion events of one CQ into events of its channel.
class ChannelSink final : public CompletionSink {
 public:
  ChannelSink(Cq* cq, CompChannel* channel) noexcept : cq_(cq), channel_(channel) {}
  void on_completion_event(tbt::Cq&) noexcept override {
    channel_->queue.push({.cq = cq_}, promised_);
  }
  // Before the CQ is armed, so that its event cannot be lost. False: out of memory.
  bool promise() noexcept { return channel_->queue.promise(promised_); }
  void take_back() noexcept { channel_->queue.take_back(promised_); }

 private:
  Cq* cq_;
  CompChannel* channel_;
  bool promised_ = false;
};

struct Cq final : ibv_cq_ex {
  std::array<std::byte, kGrowthReserve> reserve{};
  tbt::Cq* impl = nullptr;
  std::unique_ptr<ChannelSink> sink;
  ibv_pd* parent_domain = nullptr;
  uint32_t completion_reads = 0;
  uint32_t async_reads = 0;
  // The extended poll interface (cq_ex.cc).
  std::mutex polling;
  bool single_threaded = false;
  bool in_poll = false;
  Wc current{};
};

void CompletionEvent::taken() const noexcept { ++cq->completion_reads; }

struct Srq final : ibv_srq {
  tbt::Srq* impl = nullptr;
  uint32_t async_reads = 0;
};

struct Ah final : ibv_ah {
  tbt::Ah* impl = nullptr;
};

struct SendBuilder;  // qp_ex.cc

struct Qp final : ibv_qp_ex {
  Qp() noexcept : ibv_qp_ex{} {}
  ~Qp();
  Qp(const Qp&) = delete;
  Qp& operator=(const Qp&) = delete;

  std::array<std::byte, kGrowthReserve> reserve{};
  tbt::Qp* impl = nullptr;
  SendBuilder* builder = nullptr;  // only with the extended post interface
  bool sq_sig_all = false;
  uint32_t async_reads = 0;
};

inline Pd& ours(ibv_pd* pd) noexcept { return *static_cast<Pd*>(pd); }
inline Td& ours(ibv_td* td) noexcept { return *static_cast<Td*>(td); }
inline Dm& ours(ibv_dm* dm) noexcept { return *static_cast<Dm*>(dm); }
inline Mr& ours(ibv_mr* mr) noexcept { return *static_cast<Mr*>(mr); }
inline Mw& ours(ibv_mw* mw) noexcept { return *static_cast<Mw*>(mw); }
inline Ah& ours(ibv_ah* ah) noexcept { return *static_cast<Ah*>(ah); }
inline Srq& ours(ibv_srq* srq) noexcept { return *static_cast<Srq*>(srq); }
inline Cq& ours(ibv_cq_ex* cq) noexcept { return *static_cast<Cq*>(cq); }
inline Cq& ours(ibv_cq* cq) noexcept { return ours(reinterpret_cast<ibv_cq_ex*>(cq)); }
inline Qp& ours(ibv_qp_ex* qp) noexcept { return *static_cast<Qp*>(qp); }
inline Qp& ours(ibv_qp* qp) noexcept { return ours(reinterpret_cast<ibv_qp_ex*>(qp)); }
inline CompChannel& ours(ibv_comp_channel* channel) noexcept {
  return *static_cast<CompChannel*>(channel);
}

// An object was made on a domain, or is gone.
inline void add_user(ibv_pd* pd) noexcept {
  if (ours(pd).protection != nullptr) ++ours(pd).users;
}
inline void remove_user(ibv_pd* pd) noexcept {
  if (ours(pd).protection != nullptr) --ours(pd).users;
}

// For the verbs that return a pointer: nullptr, and errno from the Status.
inline std::nullptr_t fail(int code) noexcept {
  errno = code;
  return nullptr;
}
inline std::nullptr_t fail(const Status& status) noexcept { return fail(status.code()); }

// Waits until the application has acknowledged all `reads` events of an object that is being
// destroyed.
inline void wait_for_acks(pthread_mutex_t& mutex, pthread_cond_t& cond, const uint32_t& acked,
                          uint32_t reads) noexcept {
  pthread_mutex_lock(&mutex);
  while (acked != reads) pthread_cond_wait(&cond, &mutex);
  pthread_mutex_unlock(&mutex);
}

// verbs <-> tbt values used by more than one file.
AddressVector to_address_vector(const ibv_ah_attr& attr) noexcept;  // ah.cc
ibv_ah_attr from_address_vector(const AddressVector& av) noexcept;  // ah.cc
static_assert(sizeof(ibv_sge) == sizeof(Sge) && offsetof(ibv_sge, addr) == offsetof(Sge, addr) &&
              offsetof(ibv_sge, length) == offsetof(Sge, length) &&
              offsetof(ibv_sge, lkey) == offsetof(Sge, lkey));
inline const Sge* to_sges(const ibv_sge* list) noexcept {
  return reinterpret_cast<const Sge*>(list);
}

// Posts a chain of receives to a QP or SRQ; stops at the first that is refused and says which.
template <typename Queue>
int post_receives(Queue& queue, ibv_recv_wr* wr, ibv_recv_wr** bad) noexcept {
  for (; wr != nullptr; wr = wr->next) {
    const Status status = wr->num_sge < 0
                              ? Status(EINVAL)
                              : queue.post_recv({.wr_id = wr->wr_id,
                                                 .sg_list = to_sges(wr->sg_list),
                                                 .num_sge = static_cast<uint32_t>(wr->num_sge)});
    if (!status) {
      *bad = wr;
      return status.code();
    }
  }
  return 0;
}

// The operations that verbs.h calls through function pointers; context.cc puts them into each
// context.
int poll_cq(ibv_cq* cq, int count, ibv_wc* out) noexcept;                      // cq.cc
int modify_cq(ibv_cq* cq, ibv_modify_cq_attr* attr) noexcept;                  // cq.cc
int req_notify_cq(ibv_cq* cq, int solicited_only) noexcept;                    // cq.cc
int post_send(ibv_qp* qp, ibv_send_wr* wr, ibv_send_wr** bad) noexcept;        // qp.cc
int post_recv(ibv_qp* qp, ibv_recv_wr* wr, ibv_recv_wr** bad) noexcept;        // qp.cc
int post_srq_recv(ibv_srq* srq, ibv_recv_wr* wr, ibv_recv_wr** bad) noexcept;  // srq.cc
int query_port(ibv_context* context, uint8_t port, ibv_port_attr* attr, size_t size) noexcept;
int query_device_ex(ibv_context* context, const ibv_query_device_ex_input* input,
                    ibv_device_attr_ex* attr, size_t size) noexcept;
int query_rt_values(ibv_context* context, ibv_values_ex* values) noexcept;
ibv_cq_ex* create_cq_ex(ibv_context* context, ibv_cq_init_attr_ex* attr) noexcept;  // cq_ex.cc
ibv_qp* create_qp_ex(ibv_context* context, ibv_qp_init_attr_ex* attr) noexcept;     // qp.cc
ibv_srq* create_srq_ex(ibv_context* context, ibv_srq_init_attr_ex* attr) noexcept;  // srq.cc
int get_srq_num(ibv_srq* srq, uint32_t* number) noexcept;                           // srq.cc
ibv_xrcd* open_xrcd(ibv_context* context, ibv_xrcd_init_attr* attr) noexcept;       // xrcd.cc
int close_xrcd(ibv_xrcd* xrcd) noexcept;                                            // xrcd.cc
void forget_xrcds(ibv_context* context) noexcept;                                   // xrcd.cc
tbt::Xrcd* impl_of(ibv_xrcd* xrcd) noexcept;                                        // xrcd.cc
ibv_td* alloc_td(ibv_context* context, ibv_td_init_attr* attr) noexcept;            // domain.cc
int dealloc_td(ibv_td* td) noexcept;                                                // domain.cc
ibv_pd* alloc_parent_domain(ibv_context* context, ibv_parent_domain_init_attr* attr) noexcept;
int dealloc_parent_domain(Pd& pd) noexcept;
ibv_mr* register_memory(ibv_pd* pd, void* addr, size_t length, uint64_t iova,
                        unsigned int access) noexcept;            // pd_mr.cc
ibv_mw* alloc_mw(ibv_pd* pd, ibv_mw_type type) noexcept;          // mw.cc
int dealloc_mw(ibv_mw* mw) noexcept;                              // mw.cc
int bind_mw(ibv_qp* qp, ibv_mw* mw, ibv_mw_bind* bind) noexcept;  // mw.cc
// Whether a work request may bind the window to this key; bind_mw() has no such rule.
bool may_post_bind(const ibv_mw* mw, uint32_t rkey) noexcept;                      // mw.cc
void fill_bind(const ibv_mw_bind_info& info, uint32_t rkey, SendWr& wr) noexcept;  // mw.cc
ibv_dm* alloc_dm(ibv_context* context, ibv_alloc_dm_attr* attr) noexcept;  // device_memory.cc
int free_dm(ibv_dm* dm) noexcept;                                          // device_memory.cc
ibv_mr* reg_dm_mr(ibv_pd* pd, ibv_dm* dm, uint64_t offset, size_t length,
                  unsigned int access) noexcept;  // device_memory.cc

}  // namespace tbt::provider
