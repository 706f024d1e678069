# Pipelines of stages: whole pictures against one rank with the same number of parts; a covering set
# of meshes with the other tests, all with `make test-hybrids`.
add_executable(test_pipeline_pictures parallel/test_pipeline_pictures.c)
target_include_directories(test_pipeline_pictures PRIVATE .)
target_link_libraries(test_pipeline_pictures room_pipelines)
set(path tests/cases/pipeline)
set(pipeline_models
    ${path}_sd3/model,patches=1:2:4 ${path}_flux/model,patches=1:3,warmup=2 ${path}_pixart/model,patches=1:2:4 ${path}_hunyuandit/model,patches=1:2:4
    ${path}_sd15/model,patches=1 ${path}_sdxl/model,patches=1 ${path}_flux_control/model,control,patches=1:3)
set(pipeline_pictures
    ${pipeline_models} models/emoji,patches=1:2
    # several pictures, uneven stages, a picture to begin with, guidance
    ${path}_sd3/model,images=3,patches=1:2 ${path}_sd3/model,img2img,images=2,blocks=4 ${path}_flux/model,true_cfg=2,images=3,patches=1:3
    ${path}_flux/model,img2img,true_cfg=2,blocks=4 ${path}_hunyuandit/model,rescale=0.7,patches=1:4
    ${path}_hunyuandit/model,images=3,blocks=4,patches=1:3 ${path}_sd15/model,patches=1,images=3 ${path}_sdxl/model,patches=1,images=3,img2img
    ${path}_flux_control/model,control,images=3,patches=1:2 ${path}_flux_control/model,control,img2img,true_cfg=2,blocks=4
    # no step as a whole
    ${path}_sd3/model,patches=2:4,warmup=-1 ${path}_flux/model,patches=3,warmup=-1,true_cfg=2 ${path}_hunyuandit/model,patches=4,warmup=-1,rescale=0.7,images=2
    # samplers with fresh noise, with a memory
    ${path}_pixart/model,patches=1:4,scheduler=EulerAncestralDiscreteScheduler,images=2
    ${path}_pixart/model,patches=1:4,scheduler=UniPCMultistepScheduler,images=2 ${path}_pixart/model,patches=1:4,scheduler=LCMScheduler,guidance=1
    ${path}_pixart/model,patches=1:4,scheduler=DDPMScheduler
    ${path}_hunyuandit/model,scheduler=DPMSolverMultistepScheduler,patches=1:4,warmup=2
    ${path}_sd15/model,patches=1,rescale=0.7,img2img,scheduler=EulerAncestralDiscreteScheduler
    ${path}_sd15/model,patches=1,guidance=1,scheduler=LCMScheduler,images=2 ${path}_sdxl/model,patches=1,rescale=0.5,scheduler=DDPMScheduler
    # where weights come from, and how they are kept
    ${path}_sd15/model,lora=${path}_sd15_lora/lora.safetensors:0.7,patches=1
    ${path}_flux/model,lora=${path}_flux_lora/lora.safetensors:0.7,patches=1:2
    tests/cases/single_file/sd3.safetensors,config=${path}_sd3/model,patches=1:2 ${path}_sd3/model,bf16,patches=1:2
    ${path}_flux/model,bf16,patches=2,true_cfg=2 ${path}_pixart/model,bf16,patches=1:2 ${path}_hunyuandit/model,bf16,patches=2
    ${path}_sd15/model,bf16,patches=1)
set(pictures_2 thin=2 ${pipeline_pictures})
if(TESSERA_SANITIZE)
  set(pictures_2 thin=14 ${pipeline_pictures})  # every kind of picture, on fewer meshes: the sanitizers take five times as long
endif()
set(pictures_3 thin=3 ${pipeline_pictures})
set(pictures_4 thin=7 ${pipeline_pictures})
set(pictures_8 thin=41 ${pipeline_models})
foreach(ranks 2 3 4 8)
  add_test(NAME parallel/pipeline_pictures-${ranks} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
           COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_pipeline_pictures> ${pictures_${ranks}})
  set_tests_properties(parallel/pipeline_pictures-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
foreach(ranks 2 3 4 5 6 7 8)
  add_custom_command(TARGET run_hybrids POST_BUILD WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                     COMMAND ${CMAKE_COMMAND} -E env ${mpi_environment} ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_pipeline_pictures> ${pipeline_pictures})
endforeach()
add_dependencies(run_hybrids test_pipeline_pictures)
# The command as a person starts it.
add_test(NAME parallel/pipelines-command COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/parallel/test_pipelines.sh $<TARGET_FILE:tessera>
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(parallel/pipelines-command PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
# Bytes and states from stage to stage.
add_executable(test_parcel parallel/test_parcel.c)
target_include_directories(test_parcel PRIVATE .)
target_link_libraries(test_parcel room_parallel)
foreach(ranks 2 3 8)
  add_test(NAME parallel/parcel-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_parcel>)
  set_tests_properties(parallel/parcel-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
add_test(NAME parallel/parcel-delay COMMAND ${MPIEXEC_EXECUTABLE} -n 3 $<TARGET_FILE:test_parcel>)
set_tests_properties(parallel/parcel-delay PROPERTIES ENVIRONMENT "${mpi_environment};TESSERA_COMM_DELAY_MS=30" TIMEOUT 900)
add_executable(test_relay parallel/test_relay.c)
target_include_directories(test_relay PRIVATE .)
target_link_libraries(test_relay room_pipelines)
add_test(NAME parallel/relay COMMAND ${MPIEXEC_EXECUTABLE} -n 2 $<TARGET_FILE:test_relay>)
set_tests_properties(parallel/relay PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
# Ranks of one host share its memory.
add_test(NAME parallel/offload-choice COMMAND ${MPIEXEC_EXECUTABLE} -n 2 $<TARGET_FILE:test_offload_choice> ranks
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(parallel/offload-choice PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
add_executable(near_latents parallel/near_latents.c)  # for scripts
target_include_directories(near_latents PRIVATE .)
target_link_libraries(near_latents room_tensor)
# What each stage holds.
add_executable(test_memory parallel/test_memory.c)
target_include_directories(test_memory PRIVATE .)
target_link_libraries(test_memory room_pipelines)
if(NOT TESSERA_SANITIZE AND NOT TESSERA_TSAN)  # which hold memory of their own
  add_test(NAME parallel/memory COMMAND ${MPIEXEC_EXECUTABLE} -n 2 $<TARGET_FILE:test_memory> ${CMAKE_BINARY_DIR}/tests/memory-model
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(parallel/memory PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endif()
